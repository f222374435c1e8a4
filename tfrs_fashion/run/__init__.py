"""The stages of a run: one module and one function per stage, and what stages share."""
