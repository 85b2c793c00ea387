"""The pictures of the pages, one file a picture: finished frames in, matplotlib figures out."""
