"""From notebooks to a site, and what the pages share.

`pipeline` makes the book: `preflight` checks that all it needs is here, `execution` runs the
notebooks, `language_pages` makes a page for each language, `downloads` writes the numbers behind
the pages, Jupyter Book builds the site, and `site_search` writes what its search looks in. The
notebooks take the checks of their parameters and their tables from `pages`, and their figures from
`plotting` and `interactive`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        "downloads",
        "execution",
        "interactive",
        "language_pages",
        "pages",
        "pipeline",
        "plotting",
        "preflight",
        "site_search",
    ],
)
