#!/bin/sh
# Calls img2img once through the node of config/cluster that listens on this port, and prints what came of it.
#   config/cluster/call.sh 7411
set -eu
# The token of the shipped configurations, known to everybody.
token=tg_dGhpcyB0b2tlbiBpcyBrbm93biB0byBldmVyeWJvZHk
curl --silent --show-error "http://127.0.0.1:$1/mcp/images" \
  --header "Authorization: Bearer $token" \
  --header 'Content-Type: application/json' --header 'Accept: application/json, text/event-stream' \
  --header 'MCP-Protocol-Version: 2026-07-28' --header 'Mcp-Method: tools/call' --header 'Mcp-Name: img2img' \
  --data '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"img2img","arguments":{"prompt":"fog"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}' \
  | { grep -o '\[POLICY DENIED\][^"]*' || echo "$1: answered"; }
