"""One HTML file that tells of a run.

gather    what a run folder holds, damaged or unfinished as it may be
markup    HTML in which every text is escaped
charts    curves as SVG
pictures  recompressed until they fit
page      the document
"""

from infostylegan.report.page import write_report

__all__ = ["write_report"]
