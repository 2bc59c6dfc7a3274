"""`python -m proxyflash.tools`: the command line."""

from .cli import main

main()
