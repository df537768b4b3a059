"""Reports: a notebook run by papermill and made into a page, a summary and tables.

``maker`` makes one, with the help of the other modules; ``lab`` opens JupyterLab on the notebooks.
"""
