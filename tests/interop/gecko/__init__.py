"""What Firefox and Thunderbird have in common: remote control, profiles, dialogs answered as a person answers them."""
