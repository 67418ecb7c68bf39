"""Pictures of a generator and of its training.

grids       many images on one sheet, with or without labels
traversal   one code swept while everything else stands still
plots       how much each code tells, over training (the paper's Figure 10)
"""
