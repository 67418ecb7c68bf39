"""Images in: data sets by name, folder or zip; packing them; and the stream of batches that training draws.

errors      DataError: what is wrong, where, and how to mend it
images      one policy for decoding an image file into a square
sources     folders, zips, MNIST's files, and labels; pieces: a zip cut into pieces, read as one
loading     data sets in memory or on demand; BatchStream
packing     one zip of square images, annotations, and lower resolutions (pyramid); packed: reading it
preparing   making such a zip out of many photographs, going on after a kill
eyepacs     EyePACS as it is distributed; retina: one photograph; disc: where the retina is in it
celeba      CelebA as it is distributed
patients    splits that keep every patient on one side
inspection  what a set holds; licences: what may be done with it
fundus      retinal photographs as a pure function of factors; drawing: by all cores, kept in a cache
factors     sets as worlds to draw from: dsprites, shapes3d, color_mnist
imagefolder Hugging Face's layout
catalogue   open_dataset: from a name, folder or zip to a data set
"""

from infostylegan.data.catalogue import open_dataset
from infostylegan.data.errors import DataError
from infostylegan.data.loading import ArrayDataset, BatchStream, Dataset

__all__ = ["ArrayDataset", "BatchStream", "DataError", "Dataset", "open_dataset"]
