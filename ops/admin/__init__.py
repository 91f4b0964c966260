"""What CLI, console and API all call: looks and acts of operators. Nothing is printed here."""
