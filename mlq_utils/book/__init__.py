"""From notebooks to a site, and what the pages share.

`pipeline` checks what a profile needs, runs the notebooks with papermill and builds the site with
Jupyter Book. The notebooks take the checks of their parameters and their tables from `pages`, and
their figures from `plotting`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["pages", "pipeline", "plotting"])
