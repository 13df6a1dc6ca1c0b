"""From files to waveforms and frames."""
