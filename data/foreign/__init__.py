"""Anybody's data: folders, arrays, tables and Python data sets, read and preprocessed as the user's model expects."""

from data.foreign.points import Points, content_digests, read_list
from data.foreign.preprocessing import Preprocessing, fit_to_model, preprocess, stated
from data.foreign.preprocessor_config import preprocessing_from_config
from data.foreign.sources import read_pair, read_points
from data.foreign.summaries import summarise

__all__ = [
    "Points",
    "Preprocessing",
    "content_digests",
    "fit_to_model",
    "preprocess",
    "preprocessing_from_config",
    "read_list",
    "read_pair",
    "read_points",
    "stated",
    "summarise",
]
