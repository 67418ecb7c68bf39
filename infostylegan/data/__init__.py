"""Images in: data sets by name, folder or zip; packing them; and the stream of batches that training draws.

errors      DataError: what is wrong, where, and how to mend it
images      one policy for decoding an image file into a square
sources     folders, zips, MNIST's files, and labels
loading     data sets in memory or on demand; BatchStream
packing     one zip of square images
fundus      retinal photographs as a pure function of factors; drawing: by all cores, kept in a cache
catalogue   open_dataset: from a name, folder or zip to a data set
"""

from infostylegan.data.catalogue import open_dataset
from infostylegan.data.errors import DataError
from infostylegan.data.loading import ArrayDataset, BatchStream, Dataset

__all__ = ["ArrayDataset", "BatchStream", "DataError", "Dataset", "open_dataset"]
