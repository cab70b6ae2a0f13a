// Package cli runs command lines of berth as people type them, from scripts in
// testdata, each three times: on the embedded store, through a server, and
// through a server whose store is a PostgreSQL database. Those in
// testdata need no cluster; those in testdata/cluster (build tag e2e) do.
//
// Beside what testscript has, scripts use the commands of commands_test.go. In
// a server's run the environment names it, with the token of an admin who has
// the name of the local user, so that a script sees the same either way.
package cli

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berth-run/berth/internal/agentbin"
	"github.com/berth-run/berth/internal/cli"
	"github.com/berth-run/berth/internal/kube"
	"github.com/berth-run/berth/internal/pgtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"berth": func() {
		kube.QuietClientGo()
		os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}})
}

// bothWays runs the scripts of a directory on the embedded store and through
// servers. prepare adds to a script's environment.
func bothWays(t *testing.T, dir string, prepare func(*testscript.Env) error) {
	for _, mode := range []string{"embedded", "server", "database"} {
		t.Run(mode, func(t *testing.T) {
			var databases *pgtest.Server
			if mode == "database" {
				databases = pgtest.New(t, "fsync=off")
			}
			testscript.Run(t, testscript.Params{
				Dir:  dir,
				Cmds: commands,
				Condition: func(condition string) (bool, error) {
					if condition == "agent" { // make build puts it into the tree
						_, err := agentbin.Binary("linux/amd64")
						return err == nil, nil
					}
					return condition == mode || condition == "server" && mode == "database", nil
				},
				Setup: func(env *testscript.Env) error {
					for _, variable := range os.Environ() {
						if len(variable) > 6 && variable[:6] == "BERTH_" {
							name, _, _ := cut(variable)
							env.Setenv(name, "") // the machine's own must not show
						}
					}
					folder, err := examples()
					if err != nil {
						return err
					}
					env.Setenv("EXAMPLES", folder)
					env.Setenv("GORACE", "atexit_sleep_ms=0") // with -race each command would last a second longer
					if prepare != nil {
						if err := prepare(env); err != nil {
							return err
						}
					}
					if mode == "embedded" {
						return nil
					}
					if databases != nil {
						return startServer(env, databases.Database(t))
					}
					return startServer(env, "")
				},
			})
		})
	}
}
