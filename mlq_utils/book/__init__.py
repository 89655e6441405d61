"""From notebooks to a site, and what the pages share.

`pipeline` makes the book: `preflight` checks that all it needs is here, `execution` runs the
notebooks, and Jupyter Book builds the site. The notebooks take the checks of their parameters and
their tables from `pages`, and their figures from `plotting`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, ["execution", "pages", "pipeline", "plotting", "preflight"]
)
