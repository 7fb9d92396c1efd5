"""``coopt report``: what run directories hold, as one HTML page that needs nothing else.

No script, no font, no request: tables are HTML, figures are SVG in the page's own colours, and
thumbnails are data URIs. Needs the extra ``report``.
"""
