"""Who people are and what they may do: accounts, invitations, providers' sign-in, groups and roles."""
