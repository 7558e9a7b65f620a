"""The endpoints of the explorer's API: one module for each subject."""
