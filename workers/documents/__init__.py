"""Makes the documents of mails, in processes of their own. What is read of a mail is in `pipeline.mail`."""
