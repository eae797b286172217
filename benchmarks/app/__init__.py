"""The application that is measured: tables of the same columns, one observer each."""
