#!/bin/bash
# Runs a broker. The options and the path of the garbage collector's log are those of the public image's script.
set -euo pipefail
# shellcheck disable=SC2086
exec java ${KAFKA_HEAP_OPTS:--Xmx1G -Xms1G} \
    ${KAFKA_JVM_PERFORMANCE_OPTS:--server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent} \
    ${KAFKA_GC_LOG_OPTS:--Xlog:gc*:file=${LOG_DIR:-/opt/kafka/logs}/kafkaServer-gc.log:time,tags:filecount=10,filesize=100M} \
    ${KAFKA_JMX_OPTS:-} -Dkafka.logs.dir="${LOG_DIR:-/opt/kafka/logs}" \
    ${KAFKA_LOG4J_OPTS:--Dlog4j2.configurationFile=/opt/kafka/config/log4j2.yaml} ${KAFKA_OPTS:-} \
    -cp '/opt/kafka/libs/*' kafka.Kafka "$@"
