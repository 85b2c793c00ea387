"""The pages that people read. Numbers before text: a page is made of finished frames, and written when all is done."""
