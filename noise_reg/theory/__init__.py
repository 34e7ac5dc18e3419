"""What the papers derive, as code beside the measurement that tests it. Nothing in here needs a trained run."""
