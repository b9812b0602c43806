// A real Dex in memory, without its gRPC API, at an address of the loopback interface. It has one user, and the clients
// of a JSON list. SIGHUP rotates its signing key.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	gosundheit "github.com/AppsFlyer/go-sundheit"
	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/server/connectors"
	"github.com/dexidp/dex/server/session"
	"github.com/dexidp/dex/server/signer"
	"github.com/dexidp/dex/server/tokens"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/dexidp/dex/web"
	"golang.org/x/crypto/bcrypt"
)

const idTokensValidFor = 30 * time.Minute

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	issuer, address := os.Getenv("ISSUER"), os.Args[1]
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var clients []storage.Client
	must(json.Unmarshal([]byte(os.Getenv("CLIENTS")), &clients))
	hash, err := bcrypt.GenerateFromPassword([]byte("password"), bcrypt.DefaultCost)
	must(err)
	user := storage.Password{Email: "alice@example.com", Hash: hash, Username: "alice", UserID: "08a8684b"}
	store := storage.WithStaticClients(memory.New(log), clients)
	store = storage.WithStaticPasswords(store, []storage.Password{user}, log)
	local := storage.Connector{ID: connectors.LocalConnector, Name: "Email", Type: connectors.LocalConnector}
	store = storage.WithStaticConnectors(store, []storage.Connector{local})
	keys, err := (&signer.LocalConfig{KeysRotationPeriod: "6h"}).Open(
		context.Background(), store, idTokensValidFor, time.Now, log)
	must(err)
	refresh, err := tokens.NewRefreshTokenPolicy(log, false, "", "", "")
	must(err)
	dex, err := server.NewServer(context.Background(), server.Config{
		Issuer:             issuer,
		Storage:            store,
		Logger:             log,
		Signer:             keys,
		Web:                server.WebConfig{WebFS: web.FS()},
		HealthChecker:      gosundheit.New(),
		IDTokensValidFor:   idTokensValidFor,
		RefreshTokenPolicy: refresh,
		SkipApprovalScreen: true,
		SessionConfig: &session.Config{
			CookieName: "dex_session", AbsoluteLifetime: 24 * time.Hour, ValidIfNotUsedFor: time.Hour,
			SSOSharedWithDefault: "all", RememberMeCheckedByDefault: true,
		},
	})
	must(err)
	rotations := make(chan os.Signal, 1)
	signal.Notify(rotations, syscall.SIGHUP)
	go rotate(rotations, store, keys)
	must(http.ListenAndServe(address, dex))
}

// The signer rotates a key that is due when it starts. A context that is over keeps it from a second routine.
func rotate(rotations <-chan os.Signal, store storage.Storage, keys signer.Signer) {
	over, end := context.WithCancel(context.Background())
	end()
	for range rotations {
		must(store.UpdateKeys(context.Background(), func(old storage.Keys) (storage.Keys, error) {
			old.NextRotation = time.Time{}
			return old, nil
		}))
		keys.Start(over)
	}
}
