// Included before everything else in tests: the number of the switch of switches.py that is on, 0 for none.
#pragma once

extern int s2mlp_switch;
