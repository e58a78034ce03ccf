"""People who answer in files, in Label Studio or in Argilla."""
