"""One command for many recordings, images or runs: on this machine or on a cluster, with the results in one place."""
