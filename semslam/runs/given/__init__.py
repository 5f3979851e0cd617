"""What a run is given, checked before it begins: settings, a recording, and its poses, by what the images say."""
