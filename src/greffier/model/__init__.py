"""What a conversation is: values and rules, without any input or output."""
