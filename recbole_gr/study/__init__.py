"""Models x data sets x seeds from one file: resumable, paired by user, with intervals."""
