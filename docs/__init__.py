"""The pages, and the scripts that make parts of them: not installed, imported by the tests of the documentation."""
