"""What every Molecule process stands on: database, errors, time, engines, logging. It knows no room."""
