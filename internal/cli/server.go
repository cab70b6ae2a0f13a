package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/control"
	"github.com/berth-run/berth/internal/version"
)

// serverGarbage is how much garbage there may be, in percent of what is alive:
// a server stays for long, and its memory is worth more than the little of its
// time that goes into collecting.
const serverGarbage = 50

func (a *app) serverCommand() *cobra.Command {
	var c control.ServerConfig
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Serve a data directory over the network, and stay",
		Long: `Serve the data directory over the network: tasks go on without any other berth
command, and people and programs reach it with --server and a token.

One port has it all, with TLS: the API (Connect, gRPC, gRPC-Web and JSON), the
registry that pods pull packages from, what agents in pods report to, /healthz,
/readyz and /metrics. Without --tls-cert the server makes a CA of its own in the data
directory; clients trust it with --ca-file.

SIGTERM ends it well. SIGHUP puts the program that is there now in its place,
with the same socket: nobody is refused meanwhile.`,
		Example: `  berth server
  berth server token create ann
  berth server --listen 0.0.0.0:7070 --advertise berth.example.org
  berth server --database 'postgres://berth:${env:DB_PASSWORD}@db.example.org/berth' --storage /shared/berth
  BERTH_SERVER=https://berth.example.org:7070 BERTH_TOKEN_FILE=token BERTH_CA_FILE=ca.pem berth task list`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("server") {
				return fmt.Errorf("berth server serves a data directory of this machine: leave out --server")
			}
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(serverGarbage)
			}
			dropProgramPages()
			return a.serve(c)
		},
	}
	a.databaseFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&c.Listen, "listen", "127.0.0.1:7070", "address to listen on; 0.0.0.0:7070 for all of the machine's")
	flags.StringVar(&c.Dashboards, "dashboards", "", "HOST:PORT on which the dashboards of compute clusters are shown, with a login of their own (default: nowhere)")
	flags.StringSliceVar(&c.Advertise, "advertise", nil, "names and addresses that clients use, for the generated certificate")
	flags.StringVar(&c.TLSCert, "tls-cert", "", "certificate of the server, with those between it and its CA (PEM); read again when it changes")
	flags.StringVar(&c.Peer, "peer", "", "`HOST[:PORT]` by which other servers of the database reach this one (default: the first of --advertise)")
	flags.StringVar(&c.Storage, "storage", "", "where logs and packages are, for all servers of a database: a directory, or s3://BUCKET?endpoint=URL&region=REGION&prefix=PREFIX (BERTH_STORAGE; default: the data directory)")
	flags.StringVar(&c.TLSKey, "tls-key", "", "key of the certificate (PEM)")
	cmd.AddCommand(a.serverTokenCommand(), a.serverCheckCommand())
	return cmd
}

// program is where to find what this process runs, as it was started: a link
// or a file that was replaced since leads to the new version.
func program() (string, error) {
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		return filepath.Abs(path)
	}
	return os.Executable()
}

func (a *app) serve(c control.ServerConfig) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	path, err := program()
	if err != nil {
		return err
	}
	infra, err := config.Locate(a.infra)
	if err != nil {
		return err
	}
	data, err := filepath.Abs(config.DataDir(a.data, infra))
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if a.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level}))
	c.InfraPath, c.DataDir, c.Version, c.Log = infra, data, version.String(), log
	if c.Database, err = a.databaseAddress(); err != nil {
		return err
	}
	if c.Storage == "" {
		c.Storage = os.Getenv("BERTH_STORAGE")
	}
	if c.Storage != "" && !strings.Contains(c.Storage, "://") {
		if c.Storage, err = filepath.Abs(c.Storage); err != nil {
			return err
		}
	}
	c.WaitingFor = func(pid int) {
		who := "another berth process"
		if pid != 0 {
			who = fmt.Sprintf("another berth process (PID %d)", pid)
		}
		fmt.Fprintf(a.stderr, "berth: %s has the data directory %s; waiting until it ends\n", who, data)
	}

	server, err := a.openServer(c, signals)
	if server == nil {
		return err
	}
	a.announce(server)
	for s := range signals {
		if s != syscall.SIGHUP {
			log.Info("ending", "signal", s)
			return closeServer(server, log)
		}
		if err := runs(path); err != nil {
			log.Error("not restarted: the program that is there now doesn't run", "path", path, "error", err)
			continue
		}
		log.Info("restarting", "path", path)
		ended, err := server.Restart(path, append([]string{os.Args[0]}, os.Args[1:]...))
		if ended {
			return fmt.Errorf("cannot restart, and ended: %w", err)
		}
		log.Error("not restarted", "error", err)
	}
	return nil
}

func (a *app) databaseFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.database, "database", "", "store in PostgreSQL, which several servers may share: postgres://USER@HOST/NAME; the password as ${env:NAME} or ${file:PATH} in it, from PGPASSWORD or ~/.pgpass (BERTH_DATABASE)")
}

// databaseAddress is where the store is; empty for a file of the data directory.
func (a *app) databaseAddress() (berth.Secret, error) {
	address, err := config.ExpandURL(orEnv(a.database, "BERTH_DATABASE"))
	if err != nil {
		return "", fmt.Errorf("--database: %w", err)
	}
	return address, nil
}

// openServer opens the server, unless a signal ends that before. A server
// without an error is nil then.
func (a *app) openServer(c control.ServerConfig, signals <-chan os.Signal) (*control.Server, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type outcome struct {
		server *control.Server
		err    error
	}
	opened := make(chan outcome, 1)
	go func() {
		server, err := control.OpenServer(ctx, c)
		opened <- outcome{server, err}
	}()
	for {
		select {
		case o := <-opened:
			return o.server, o.err
		case s := <-signals:
			if s == syscall.SIGHUP {
				continue // what would be started is what is starting
			}
			cancel()
			if o := <-opened; o.err != nil && !errors.Is(o.err, context.Canceled) {
				return nil, o.err
			} else if o.server != nil {
				return nil, o.server.Close()
			}
			return nil, nil
		}
	}
}

// announce says where the server is and how to use it.
func (a *app) announce(server *control.Server) {
	trust, flag := "its certificate was given", ""
	if server.CAPath != "" {
		trust, flag = "its CA is "+server.CAPath, " --ca-file ca.pem"
	}
	fmt.Fprintf(a.stderr, "berth: serving %s; %s\n", server.URL, trust)
	fmt.Fprintf(a.stderr, "berth: make a token with berth server token create NAME%s, and use it with berth --server %s%s --token TOKEN (or BERTH_SERVER, BERTH_CA_FILE, BERTH_TOKEN)\n", a.where(), server.URL, flag)
}

// where are the flags by which another command finds the same data directory;
// without them it would make one of its own elsewhere.
func (a *app) where() string {
	text := ""
	if a.infra != "" {
		text += " --infra " + a.infra
	}
	if a.data != "" {
		text += " --data " + a.data
	}
	return text
}

// endLimit bounds how long a server may take to end.
const endLimit = 9 * time.Second

// closeServer ends the server in time: what is left then is found by the next
// one, as after a crash.
func closeServer(server *control.Server, log *slog.Logger) error {
	closed := make(chan error, 1)
	go func() { closed <- server.Close() }()
	select {
	case err := <-closed:
		log.Info("ended")
		return err
	case <-time.After(endLimit):
		log.Warn("ended before everything was finished; the next server goes on with it")
		return nil
	}
}

// runs says why a program can't take this one's place, or nil.
func runs(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("berth version: %w: %s", err, oneLine(string(out)))
	}
	return nil
}
