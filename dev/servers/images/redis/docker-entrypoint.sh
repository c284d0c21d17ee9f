#!/bin/bash
# Works as the public image's entrypoint does: arguments that begin with an option or a configuration file are redis-server's; root
# becomes the user redis; and other machines may connect without a password, unless --protected-mode is given.
set -euo pipefail
[[ ${1:-} != -* && ${1:-} != *.conf ]] || set -- redis-server "$@"
if [[ $1 = redis-server ]]; then
    if [ "$(id -u)" = 0 ]; then
        find . \! -user redis -exec chown redis '{}' +
        exec setpriv --reuid=redis --regid=redis --clear-groups -- "$0" "$@"
    fi
    [[ " $* " = *" --protected-mode "* ]] || set -- "$@" --protected-mode no
fi
exec "$@"
