"""`python -m synsweep` is `synsweep`."""

from synsweep.cli import main

if __name__ == "__main__":
    main(prog_name="synsweep")
