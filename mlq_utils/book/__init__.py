"""The pipeline from notebooks to a site, and what its pages share."""
