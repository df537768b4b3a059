"""Reports: a notebook run by papermill and made into a page, a summary and tables."""
