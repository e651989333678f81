"""Live fleet state as numpy tables: no object per device."""
