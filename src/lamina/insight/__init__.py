"""What a net has learned, why it answers as it does, and what is wrong with the data: pure functions, arrays out."""
