// Included before everything else in tests: which of switches.py is on, 0 for none.
#pragma once

extern int s2mlp_switch;
