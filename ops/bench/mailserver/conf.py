"""The configuration of a private Dovecot, in the two syntaxes that its versions understand."""

from typing import Final

BEFORE_2_4: Final = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/dovecot.log
listen = 127.0.0.1
protocols = imap
ssl = {ssl}
{certificates}
disable_plaintext_auth = no
auth_mechanisms = plain login xoauth2 oauthbearer
auth_failure_delay = 0
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
mail_location = maildir:~/Maildir:LAYOUT=fs
mail_max_userip_connections = {connections}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
service imap-login {{
  chroot =
  process_min_avail = 1
  service_count = 0
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
  }}
}}
service imap {{
  process_limit = 400
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={home}/mail/%u
}}
"""

# Tokens are not accepted: since 2.4 Dovecot needs another server to validate them.
SINCE_2_4: Final = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/dovecot.log
listen = 127.0.0.1
protocols = imap
ssl = {ssl}
{certificates}
auth_allow_cleartext = yes
auth_mechanisms = plain login
auth_failure_delay = 0
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
mail_driver = maildir
mail_path = ~/Maildir
mailbox_list_layout = fs
mail_max_userip_connections = {connections}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
service imap-login {{
  chroot =
  process_min_avail = 1
  restart_request_count = unlimited
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
  }}
}}
service imap {{
  process_limit = 400
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
passdb static {{
  passdb_static_password = {password}
}}
userdb static {{
  fields {{
    uid = {uid}
    gid = {gid}
    home = {home}/mail/%{{user}}
  }}
}}
"""
