// A real Vault core in memory, with transit and the ways to log in that notifier knows, on one address of the loopback
// interface. It prints where it is, its root token and what unseals it. With a certificate and its key it speaks TLS.
package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/hashicorp/go-hclog"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The core asks for what it has built in before it mounts anything.
var builtin = map[string]logical.Factory{
	"transit": transit.Factory, "approle": approle.Factory, "kubernetes": kubernetes.Factory,
}

type registry struct{}

func (registry) Contains(name string, _ consts.PluginType) bool { return builtin[name] != nil }

func (registry) Get(name string, _ consts.PluginType) (func() (interface{}, error), bool) {
	factory, there := builtin[name]
	return func() (interface{}, error) { return factory, nil }, there
}

func (registry) Keys(consts.PluginType) []string { return []string{"transit", "approle", "kubernetes"} }

func (registry) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, true
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func main() {
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr})
	store, err := inmem.NewInmem(nil, log)
	must(err)
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           store,
		Logger:             log,
		DisableMlock:       true,
		BuiltinRegistry:    registry{},
		LogicalBackends:    map[string]logical.Factory{"transit": transit.Factory},
		CredentialBackends: map[string]logical.Factory{"approle": approle.Factory, "kubernetes": kubernetes.Factory},
	})
	must(err)
	made, err := core.Initialize(context.Background(), &vault.InitParams{
		BarrierConfig:  &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
		RecoveryConfig: &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
	})
	must(err)
	_, err = core.Unseal(made.SecretShares[0])
	must(err)
	listener, err := net.Listen("tcp", os.Args[1])
	must(err)
	fmt.Printf("address=%s token=%s unseal=%s\n", listener.Addr(), made.RootToken, hex.EncodeToString(made.SecretShares[0]))
	server := http.Server{Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{},
	})}
	if len(os.Args) > 3 {
		must(server.ServeTLS(listener, os.Args[2], os.Args[3]))
	}
	must(server.Serve(listener))
}
