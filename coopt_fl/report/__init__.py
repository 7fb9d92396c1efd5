"""``coopt report``: the results of run directories as one self-contained HTML page.

The page has no scripts or fonts and makes no requests: tables are HTML, figures are SVG in the
page's own colours, thumbnails are data URIs. Needs the extra ``report``.
"""
