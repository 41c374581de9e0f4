"""``python -m cli``: the same as ``animato``, for where scripts are not on the path."""

from cli.app import main

if __name__ == "__main__":
    main()
