"""Methods in which several models, or several roles of one, work on one answer."""
