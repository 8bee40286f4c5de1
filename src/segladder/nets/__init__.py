"""Network parts shared by methods: backbones, upsampling layers, losses."""
