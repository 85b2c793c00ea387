"""What the tables of one run or of several runs say: frames in, frames out, no text for people and no pictures."""
