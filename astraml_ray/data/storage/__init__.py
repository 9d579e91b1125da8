"""Objects in S3 and on disk: found, opened by ranges, read again when reading fails."""
