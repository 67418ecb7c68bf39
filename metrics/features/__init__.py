"""Networks that turn images into features, named in every result that is computed from them.

inception     Inception-v3 of 2015-12-05: what published FIDs are measured with
efficientnet  EfficientNet-Lite0, which comes as a package from PyPI and needs no download of its own
resize        Pillow's resizing, in floating point

`EXTRACTORS` may be given more: a name, and a function that makes an `Extractor`.
"""

from metrics.features.extractor import AUTO, EXTRACTORS, Extractor, ExtractorError, open_extractor

__all__ = ["AUTO", "EXTRACTORS", "Extractor", "ExtractorError", "open_extractor"]
