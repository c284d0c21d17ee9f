// Serves the MongoDB protocol from a folder of SQLite databases: FerretDB, patched by ferretdb.patch.
package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:27017", "address for plain connections; none if empty")
	tls := flag.String("tls", "", "address for TLS connections; none if empty")
	cert := flag.String("tls-cert", "", "PEM file with the server's certificates")
	key := flag.String("tls-key", "", "PEM file with their key")
	ca := flag.String("tls-ca", "", "PEM file with the authority of client certificates; if empty, clients need no certificate")
	user := flag.String("user", "", "user for logins (SCRAM, authSource=admin), created at the first start in an empty folder; if empty, clients need no login")
	passwordEnv := flag.String("password-env", "", "environment variable with the user's password")
	data := flag.String("data", ".", "folder of the databases")
	metrics := flag.String("metrics", "", "address of Prometheus metrics about memory, connections and requests; none if empty")
	flag.Parse()
	// Few objects are live at a time, so collecting garbage less often costs little memory.
	debug.SetGCPercent(400)

	password := os.Getenv(*passwordEnv)
	if *user != "" && password == "" {
		log.Fatalf("-user needs a password: %q, which -password-env names, is empty", *passwordEnv)
	}

	// With synchronous(normal), a write survives the end of this process, but not a failure of the machine. With a sync for each write, a
	// command of many updates takes twice as long; MongoDB syncs its journal once for a command.
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: *listen, TLS: *tls, TLSCertFile: *cert, TLSKeyFile: *key, TLSCAFile: *ca},
		Logger:    slog.New(plain{slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})}),
		Handler:   "sqlite",
		SQLiteURL: "file:" + *data + "/?_pragma=cache_size(-32768)&_pragma=wal_autocheckpoint(8000)&_pragma=synchronous(normal)",
		User:      *user,
		Password:  password,
	})
	if err != nil {
		log.Fatal(err)
	}

	if *metrics != "" {
		listener, err := net.Listen("tcp", *metrics)
		if err != nil {
			log.Fatal(err)
		}
		http.Handle("/metrics", promhttp.Handler())
		go http.Serve(listener, nil)
	}

	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := server.Run(stopped); err != nil {
		log.Fatal(err)
	}
}

// plain is a handler that drops the attributes of loggers. FerretDB creates a logger with the arguments of each statement, even if
// it logs nothing, and formatting them takes a fifth of the time of an insert.
type plain struct{ slog.Handler }

func (p plain) WithAttrs([]slog.Attr) slog.Handler { return p }
func (p plain) WithGroup(string) slog.Handler      { return p }
