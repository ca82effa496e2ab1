"""`python -m imgsearch` is the `imgsearch` command."""

from imgsearch.cli import main

if __name__ == "__main__":
    main()
