import sys

from s2mlp_cuda.cli import main

sys.exit(main())
